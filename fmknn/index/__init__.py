"""How item vectors are searched. Knows no ids."""
