"""Files that hold a cluster's contents: the frames of all of them, and the format of backups."""
