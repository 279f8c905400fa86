"""Images, and the dependencies of a project in them."""
