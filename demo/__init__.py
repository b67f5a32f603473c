"""`make demo`: three hosts on one machine, and how fast the dead leave DNS."""
