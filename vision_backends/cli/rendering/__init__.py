"""How answers, states and progress read on a terminal."""
