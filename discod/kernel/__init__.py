"""What features that change the kernel share: netlink, and the programs of the system."""
