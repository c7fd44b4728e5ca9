"""One module per thing that a person starts."""
