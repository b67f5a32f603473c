"""The kernel's side of BGP against a real kernel, in namespaces."""
