"""Small Trio tools that know nothing of agents."""
