"""A page of this machine's own, where a person cuts a photograph out in a browser."""
