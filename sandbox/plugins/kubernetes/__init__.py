"""Stand-in for pulumi-kubernetes 4.34.2: objects of any kind, and `helm.sh/v3:Release` of one chart.

    kubeconfig   where the cluster is and who asks
    api          the requests to the API server
    objects      pure: names, normal form, pruned live state, what goes into state, what is secret
    changes      pure: old against new as Pulumi's detailed diff, what replaces
    readiness    pure: what keeps an object from being ready
    plugin       objects as Pulumi resources; it hands those of a release on
    releases     releases as Pulumi resources
    release      pure: inputs, state and diff of a Helm release
    records      pure: revisions of a Helm release as Helm keeps them
    helm         Helm's install, upgrade and uninstall over the API
    chart        the seam to the sandbox's model of kube-prometheus-stack

What differs from the real plugin:
- It talks to API servers on this machine only, and never takes the ambient `~/.kube/config`.
- Server-side apply only; no rendering of YAML files, no Patch resources, no functions, one chart.
- A Service is ready without the 10 s in which the real plugin watches its endpoints settle.
- Polls and retries are paced by the sandbox's poll interval; the waits that users can set are what they say.
- `helm.sh/v3:Release` checks values against the chart in a preview; the real one finds out in the update.
"""
