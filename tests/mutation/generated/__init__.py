"""Small changes to the library's code, each of which some test has to notice."""
