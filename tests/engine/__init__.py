"""The whole program on the real Pulumi engine, deployed to a sandbox."""
