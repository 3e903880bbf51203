"""Attacks: what a hostile database, caller, model or host might do, and that it comes to nothing."""
