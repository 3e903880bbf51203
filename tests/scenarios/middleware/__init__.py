"""The built-in middleware, in whole sessions: in virtual time, on a real SQLite file, with a restart in the middle."""
