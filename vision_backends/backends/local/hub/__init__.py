"""Where models come from: the hub, its listing, downloads and checks."""
