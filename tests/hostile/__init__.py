"""Attacks: what a hostile database, caller, model or host might do, and that it does no harm."""
