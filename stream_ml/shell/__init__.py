"""The shells: everything that touches the world. The core never imports this package."""
