"""Plain implementations that the tests compare with, written from papers and contracts and not from the product."""
