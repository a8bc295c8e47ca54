"""Stage explore: a page in a folder, on which a target's catalogue is sorted, filtered and looked at."""
