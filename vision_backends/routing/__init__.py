"""The way of a call, from the list of inputs to one turn of one rung."""
