"""The embedded sandbox: a local stand-in for OVHcloud that the same Pulumi program is deployed to."""
