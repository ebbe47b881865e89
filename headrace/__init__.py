"""What every part of Headrace and its users share: the messages and the error base."""
