"""Pages inside Flower: same port, navigation, login and theme."""
