"""The checks: answers in, findings out. Pure.

Hugging Face's error codes are those that its own client reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from components.ai_deploy.spec import DeploymentStrategy
from components.prices import prices
from components.settings import ClusterSettings, EndpointSettings, MonitoringSettings, Settings
from doctor.answers import Access, Answer, GpuUse
from doctor.finding import Finding, ok, problem, unknown
from doctor.rights import IAM_PREFIX, Call, refused

CONTROL_PANEL = "look it up in the OVHcloud Control Panel"
_SUPPORT = "have OVHcloud's support raise the quota"
_MIB_PER_GB = 1024
"""The quota counts memory in MiB, as OpenStack does, flavors in GB; their GB are taken for GiB."""


def _unanswered(topic: str, answer: Answer) -> Finding:
    return unknown(topic, answer.trouble, f"see to the cause, or {CONTROL_PANEL}")


def credentials(details: Answer) -> Finding:
    """Whether OVHcloud knows the credentials; `details` is `GET /auth/details`."""
    if not details.known:
        if details.status in (400, 401, 403):
            remedy = "make new ones as docs/going-live.md says, and set them"
            return problem("credentials", details.trouble, remedy)
        return unknown("credentials", details.trouble, "see to the cause and look again")
    return ok("credentials", f"account {details.value.get('account')}, method {details.value.get('method')}")


def rights(details: Answer, checked: Answer, calls: Sequence[Call], service_name: str) -> Iterator[Finding]:
    """Whether the credentials may make the calls.

    `details` is `GET /auth/details`, whose `allowedRoutes` bound a consumer key; `checked` is IAM's answer to
    a check of the calls' actions.
    """
    routes: Collection[Mapping[str, Any]] | None = (
        details.value.get("allowedRoutes") if details.known else None
    )
    if routes is not None:
        lacking = [f"{call.method} {call.path}" for call in refused(calls, routes, service_name)]
        if lacking:
            yield problem(
                "consumer key",
                f"does not allow {_few(lacking)} below /cloud/project/{service_name}",
                "make one with GET, POST, PUT and DELETE on /cloud/project/<id>/*",
            )
        else:
            yield ok("consumer key", f"allows the {len(calls)} calls that the program makes")
    if not checked.known:
        yield unknown(
            "rights (IAM)", checked.trouble, "compare the policy with the list in docs/going-live.md"
        )
        return
    authorized = set(checked.value["authorizedActions"])
    actions = dict.fromkeys(IAM_PREFIX + call.action for call in calls)
    missing = [action.removeprefix(IAM_PREFIX) for action in actions if action not in authorized]
    if missing:
        remedy = f"give the credentials these actions, each with the prefix {IAM_PREFIX}"
        yield problem("rights (IAM)", f"missing: {_few(missing, most=40)}", remedy)
    else:
        yield ok("rights (IAM)", f"all {len(actions)} actions that the program needs")


def project(answer: Answer, service_name: str) -> Finding:
    """Whether the project can be used; `answer` is `GET /cloud/project/{id}`."""
    if not answer.known:
        if answer.status == 404:
            remedy = "set serviceName or OVH_CLOUD_PROJECT_SERVICE to the id of a project of this account"
            return problem("project", f"{service_name} is not to be seen with these credentials", remedy)
        return _unanswered("project", answer)
    status = answer.value["status"]
    if status != "ok":
        return problem(
            "project", f"{service_name} is {status}", "see to payment and state in the Control Panel"
        )
    return ok("project", f"{service_name} is ok")


def ai_service(answer: Answer) -> Finding:
    """Whether AI Deploy may be used in the project; `answer` is `GET …/ai/authorization`."""
    if not answer.known:
        return _unanswered("AI service", answer)
    if not answer.value["authorized"]:
        remedy = (
            "open AI Deploy in the Control Panel, or call POST /cloud/project/{serviceName}/ai/authorization"
        )
        return problem("AI service", "is not authorised in the project", remedy)
    return ok("AI service", "is authorised in the project")


def gpu_flavor(regions: Answer, flavors: Answer, settings: EndpointSettings) -> Finding:
    """Whether the region has the flavor in that size; asked are `…/ai/capabilities/region` and below."""
    topic = "GPU flavor"
    if not regions.known:
        return _unanswered(topic, regions)
    names = [region["id"] for region in regions.value]
    if settings.region not in names:
        return problem(
            topic, f"region {settings.region} has no AI products", f"region: one of {', '.join(names)}"
        )
    if not flavors.known:
        return _unanswered(topic, flavors)
    offered = {flavor["id"]: flavor for flavor in flavors.value}
    flavor = offered.get(settings.gpu_flavor)
    if flavor is None:
        remedy = f"gpuFlavor: one of {', '.join(sorted(offered))}"
        return problem(topic, f"{settings.gpu_flavor} is not offered in {settings.region}", remedy)
    if settings.gpu_count > flavor["max"]:
        return problem(
            topic,
            f"a replica of {settings.gpu_flavor} has at most {_counted(flavor['max'], 'GPU')}",
            "lower gpuCount",
        )
    return ok(topic, f"{settings.gpu_flavor} is offered in {settings.region}")


def gpu_quota(
    quota: Answer, apps: Answer, settings: EndpointSettings, identities: Collection[str]
) -> Finding:
    """Whether the project may use as many GPUs as the stack needs at most, an update included.

    `quota` is how many GPUs the project may use at once (None: not told), `apps` is a `GpuUse` for each of
    its apps. Those that carry one of `identities`, or are to be taken over, belong to the stack.
    """
    topic = "GPU quota"
    if not quota.known or not apps.known:
        return _unanswered(topic, quota if not quota.known else apps)
    if quota.value is None:
        return unknown(
            topic, "the API does not tell it", f"{CONTROL_PANEL}; it is 4 unless support has raised it"
        )
    limit = int(quota.value)
    if settings.gpu_quota > limit:
        return problem(
            topic,
            f"gpuQuota is {settings.gpu_quota}, the project may use {limit} at once",
            f"set gpuQuota to {limit} and maxReplicas to what fits, or {_SUPPORT}",
        )
    uses: Sequence[GpuUse] = apps.value
    others = [
        app for app in uses if app.gpus and app.identity not in identities and app.id != settings.adopt_app_id
    ]
    surge = 0
    if settings.container_updates == "roll":
        surge, _ = DeploymentStrategy().limits(settings.max_replicas)
    most = (settings.max_replicas + surge) * settings.gpu_count
    free = limit - sum(app.gpus for app in others)
    holders = _few([f"{app.name} ({app.id}) has {app.gpus}" for app in others])
    told = f"{limit} at once, {holders or 'none in use by other apps'}"
    if settings.max_replicas * settings.gpu_count > free:
        return problem(
            topic,
            f"{told}; this stack needs up to {most}",
            f"end other apps, lower maxReplicas, or {_SUPPORT}",
        )
    if most > free:
        return problem(
            topic,
            f"{told}; with maxReplicas running an update needs {most}",
            f"end other apps, lower maxReplicas, set containerUpdates: restart, or {_SUPPORT}",
        )
    return ok(topic, f"{told}; this stack needs up to {most}")


def kubernetes(regions: Answer, versions: Answer, settings: ClusterSettings) -> Iterator[Finding]:
    """Whether the region has Managed Kubernetes in that version.

    `versions` are those that the API's own description lists for new clusters.
    """
    region, version = settings.cluster_region, settings.kubernetes_version
    if not regions.known:
        yield _unanswered("cluster region", regions)
    elif region not in regions.value:
        remedy = f"clusterRegion: one of {', '.join(regions.value)}"
        yield problem("cluster region", f"no cluster can be made in {region}", remedy)
    else:
        yield ok("cluster region", f"{region} has Managed Kubernetes")
    if not versions.known:
        yield _unanswered("Kubernetes", versions)
    elif version not in versions.value:
        remedy = f"kubernetesVersion: one of {', '.join(versions.value)}"
        yield problem("Kubernetes", f"{version} is not offered", remedy)
    else:
        yield ok("Kubernetes", f"{version} is offered")


def nodes(flavors: Answer, quotas: Answer, settings: ClusterSettings, deployed: bool) -> Iterator[Finding]:
    """Whether the region has the nodes' flavor, and the project room for them.

    `flavors` are `GET …/capabilities/kube/flavors` of the region, `quotas` are `GET …/quota`. What a stack
    that is `deployed` uses is part of what is used: a lack is then no problem for sure.
    """
    if not flavors.known:
        yield _unanswered("node flavor", flavors)
        return
    available = {flavor["name"]: flavor for flavor in flavors.value if flavor["state"] == "available"}
    flavor = available.get(settings.node_flavor)
    if flavor is None:
        remedy = f"nodeFlavor: one of {', '.join(sorted(available)) or '(none)'}"
        yield problem(
            "node flavor", f"{settings.node_flavor} cannot be had in {settings.cluster_region}", remedy
        )
        return
    yield ok("node flavor", f"{settings.node_flavor} can be had in {settings.cluster_region}")
    quota = _region_quota(quotas, settings.cluster_region, "instance")
    if not quota.known:
        yield _unanswered("instance quota", quota)
        return
    count = settings.node_count
    cores, memory = count * flavor["vCPUs"], count * flavor["ram"] * _MIB_PER_GB
    wanted = {
        _counted(count, "instance"): (count, "maxInstances", "usedInstances"),
        f"{cores} vCPU": (cores, "maxCores", "usedCores"),
        f"{memory} MiB of memory": (memory, "maxRam", "usedRAM"),
    }
    yield _room("instance quota", settings.cluster_region, wanted, quota.value, "lower nodeCount", deployed)


def storage(
    quotas: Answer, cluster: ClusterSettings, settings: MonitoringSettings, deployed: bool
) -> Iterator[Finding]:
    """Whether there is room for the volumes, and the storage class is one of Managed Kubernetes'."""
    if prices().volume(settings.storage_class.removeprefix("csi-cinder-")) is None:
        known = ", ".join(f"csi-cinder-{name}" for name in prices().volumes)
        remedy = f"storageClass: {known}, or check that you will make this one"
        yield unknown("storage class", f"{settings.storage_class} is none of OVHcloud's", remedy)
    quota = _region_quota(quotas, cluster.cluster_region, "volume")
    if not quota.known:
        yield _unanswered("volume quota", quota)
        return
    sizes = (settings.prometheus_storage, settings.alertmanager_storage, settings.grafana_storage)
    wanted = {
        _counted(len(sizes), "volume"): (len(sizes), "maxVolumeCount", "volumeCount"),
        f"{sum(sizes)} GiB": (sum(sizes), "maxGigabytes", "usedGigabytes"),
    }
    smaller = "lower the sizes of the volumes"
    yield _room("volume quota", cluster.cluster_region, wanted, quota.value, smaller, deployed)


def network(
    vrack: Answer, quotas: Answer, cluster: ClusterSettings, settings: MonitoringSettings, deployed: bool
) -> Iterator[Finding]:
    """Whether Grafana's load balancer can be made: `vrack` is `GET …/vrack`, which a public one needs."""
    if settings.grafana_access != "load-balancer":
        return
    if vrack.status == 404:
        remedy = "attach the project to a vRack in the Control Panel, or set grafanaAccess: port-forward"
        yield problem("vRack", "the project is in none, a load balancer needs it", remedy)
    elif not vrack.known:
        yield _unanswered("vRack", vrack)
    else:
        yield ok("vRack", f"the project is in {vrack.value.get('id')}")
    balancers = _region_quota(quotas, cluster.cluster_region, "loadbalancer")
    if not balancers.known:
        yield _unanswered("load balancers", balancers)
        return
    wanted = {_counted(1, "load balancer"): (1, "maxLoadbalancers", "usedLoadbalancers")}
    smaller = "set grafanaAccess: port-forward"
    yield _room("load balancers", cluster.cluster_region, wanted, balancers.value, smaller, deployed)


def _region_quota(quotas: Answer, region: str, category: str) -> Answer:
    """The part of a region's quota that is about a category."""
    if not quotas.known:
        return quotas
    found: Mapping[str, Any] = next((quota for quota in quotas.value if quota.get("region") == region), {})
    if not found.get(category):
        return Answer(trouble=f"the quota of {region} says nothing about {category}")
    return Answer(found[category])


def _room(
    topic: str,
    region: str,
    wanted: Mapping[str, tuple[int, str, str]],
    quota: Mapping[str, int | None],
    smaller: str,
    deployed: bool,
) -> Finding:
    """Whether what is wanted fits besides what is used.

    `wanted` is in words, as a number, and the keys of limit and use in `quota`; a limit that is unknown or
    negative is none.
    """
    lacking: list[str] = []
    for words, (count, most, in_use) in wanted.items():
        limit, used = quota.get(most), quota.get(in_use) or 0
        if limit is not None and limit >= 0 and count > limit - used:
            lacking.append(f"{words} needed, {max(0, limit - used)} of {limit} free")
    if not lacking:
        return ok(topic, f"{region} has room for {', '.join(wanted)}")
    text = f"{region}: {'; '.join(lacking)}"
    if deployed:
        return unknown(topic, text, "the stack itself may be what uses it: see what the next update adds")
    return problem(topic, text, f"{smaller}, or {_SUPPORT}")


def model(access: Answer, name: str, endpoint: str) -> Finding:
    """Whether the model can be downloaded; the value of `access` is an `Access`."""
    topic = "model"
    if not access.known:
        return unknown(
            topic, access.trouble, "see that the machine reaches Hugging Face; the app downloads from there"
        )
    found: Access = access.value
    setting = "huggingFaceToken (or HF_TOKEN)"
    if found.token_known is False:
        return problem(
            topic,
            f"Hugging Face does not know the token in {setting}",
            f"make a new one at {endpoint}/settings/tokens",
        )
    if found.status == 200:
        return ok(topic, f"{name} may be downloaded{'' if found.token_known else ', without a token'}")
    page = f"{endpoint}/{name}"
    if found.code == "GatedRepo":
        if found.token_known:
            return problem(
                topic,
                f"{name} is gated, and the token's account has no access",
                f"accept its terms at {page}",
            )
        return problem(
            topic, f"{name} is gated, and there is no token", f"accept its terms at {page} and set {setting}"
        )
    if found.code == "RepoNotFound" or found.status in (401, 404):
        remedy = f"check the key model; if it is private, set {setting} of an account that may read it"
        return problem(topic, f"there is no {name}, or the token may not see it", remedy)
    if found.status == 403:
        return problem(
            topic, f"the token may not read {name}", f"give it read access to gated models, or see {page}"
        )
    return unknown(topic, f"Hugging Face answers {found.status} {found.code}".strip(), "try again later")


def chart(index: Answer, settings: MonitoringSettings) -> Finding:
    """Whether the repository has the chart; the value of `index` is whether its index names this version."""
    version = settings.chart_version
    if not index.known:
        return unknown(
            "Helm chart", index.trouble, "see that the machine that deploys reaches chartRepository"
        )
    if index.value is not True:
        remedy = "chartVersion: a version that the repository has"
        return problem(
            "Helm chart", f"{settings.chart_repository} has no kube-prometheus-stack {version}", remedy
        )
    return ok("Helm chart", f"kube-prometheus-stack {version} is in {settings.chart_repository}")


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _few(things: Sequence[str], most: int = 6) -> str:
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(things[:most]) + more


def everything(
    answers: Mapping[str, Answer], settings: Settings, calls: Sequence[Call], identities: Collection[str]
) -> Iterator[Finding]:
    """The findings about OVHcloud, in the order to see to them.

    Keys of `answers` are those of `gather.questions`. `identities` are in the stack's state, and there are
    none before its first update.
    """
    deployed = bool(identities)
    service_name = settings.general.service_name
    endpoint, cluster, monitoring = settings.endpoint, settings.cluster, settings.monitoring
    yield from rights(answers["details"], answers["rights"], calls, service_name)
    yield project(answers["project"], service_name)
    yield ai_service(answers["authorization"])
    yield gpu_flavor(answers["ai regions"], answers["ai flavors"], endpoint)
    yield gpu_quota(answers["gpu quota"], answers["apps"], endpoint, identities)
    yield from kubernetes(answers["kube regions"], answers["kube versions"], cluster)
    yield from nodes(answers["kube flavors"], answers["quotas"], cluster, deployed)
    yield from storage(answers["quotas"], cluster, monitoring, deployed)
    yield from network(answers["vrack"], answers["quotas"], cluster, monitoring, deployed)
