"""Stand-in for pulumi-ovh 2.22.0: clusters, node pools, API-server restrictions and OpenStack users.

Makes the requests that the recorded real plugin made (go-ovh's client and signature included) and leaves the
state that it left. Ported from terraform-provider-ovh (ovh/resource_cloud_project_kube*.go,
resource_cloud_project_user.go, main of August 2026) and go-ovh 1.9.0.

Where it differs from the real plugin:
- it talks to loopback addresses only, so endpoint names and OAuth2 (which go-ovh refuses for a raw URL) fail;
- `ovh.conf` files are not read, `apiRateLimit` is ignored;
- the deprecated input `customizations` is refused;
- other resource types and functions say "not implemented".
Assumed: the User-Agent's version part, and autonaming of every optional `name`.
"""
