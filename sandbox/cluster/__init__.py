"""Managed Kubernetes of the sandbox: an API server stand-in, its controllers, operator and chart.

cluster        one cluster: server, store and controllers together
apiserver      HTTP (documents: what the server says about itself; selectors, tables: what lists can be
               asked for, and how kubectl shows them)
storage        the objects, and the API for controllers
kinds, schemas, rules, defaults, errors
               which kinds there are, what the server refuses and how it says so, what it fills in
fields         pure: patches, and who owns which field
crds           definitions of the operator's kinds
controllers/   volumes, load balancers, pods, deletions, the page where Grafana would be
mirror         objects as files, for people
operator       pure: the operator's resources as configuration of Prometheus and Alertmanager
               (options, discovery: its spelling, its targets; operated: objects that it makes)
monitoring     the real Prometheus and Alertmanager; programs: containers that really run
daemon, mounts a process that runs on and on, files that it gets
quantities     durations and sizes as numbers
chart/         pure: a model of kube-prometheus-stack
"""
