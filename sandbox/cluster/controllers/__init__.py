"""What runs in a cluster: controllers of namespaces, volumes, load balancers and workloads."""
