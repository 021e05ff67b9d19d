"""InferenceEndpoint: vLLM on AI Deploy behind HTTPS and Bearer tokens, scaled on its own metric."""

from __future__ import annotations

import shlex
from itertools import pairwise
from urllib.parse import urlsplit

import pulumi

from components.ai_deploy.resources import App, Identity, Readiness, Token, TokenSweep
from components.ai_deploy.spec import (
    AutomaticScaling,
    CustomMetrics,
    DeploymentStrategy,
    FixedScaling,
    ScalingStrategy,
)
from components.settings import EndpointSettings

_VLLM_PORT = 8000
"""Where vLLM listens when it is not told otherwise."""


def command(settings: EndpointSettings) -> list[str]:
    """The container's command: vLLM's OpenAI server, in a shell as the reference architecture starts it."""
    arguments = ["--model", settings.model, *settings.vllm_arguments]
    if settings.port != _VLLM_PORT:
        arguments += ["--port", str(settings.port)]
    return ["bash", "-c", f"python3 -m vllm.entrypoints.openai.api_server {shlex.join(arguments)}"]


def scaling(settings: EndpointSettings) -> ScalingStrategy:
    """A fixed number of replicas where the bounds are equal, else automatic scaling on vLLM's metric.

    `<SELF>` stands for the app; the platform reads the metric inside, on the app's own port, without a token.
    """
    if settings.min_replicas == settings.max_replicas:
        return ScalingStrategy(fixed=FixedScaling(replicas=settings.min_replicas))
    return ScalingStrategy(
        automatic=AutomaticScaling(
            replicas_min=settings.min_replicas,
            replicas_max=settings.max_replicas,
            scale_up_stabilization_window_seconds=settings.scale_up_stabilization_seconds,
            scale_down_stabilization_window_seconds=settings.scale_down_stabilization_seconds,
            custom_metrics=CustomMetrics(
                api_url=f"http://<SELF>:{settings.port}/metrics",
                format="PROMETHEUS",
                value_location=settings.scaling_metric,
                target_value=float(settings.scaling_target),
                aggregation_type=settings.scaling_aggregation,
            ),
        )
    )


def generations(settings: EndpointSettings) -> list[int]:
    """Generations of tokens that are valid: the one in use and, if it is to be kept, the previous one.

    Callers may go on with the previous one until the next change, and Prometheus until its configuration has
    arrived (a changed Secret takes up to 90 s to reach it).
    """
    current = settings.token_generation
    return [current, current - 1] if settings.keep_previous_tokens and current > 1 else [current]


class InferenceEndpoint(pulumi.ComponentResource):
    """One model behind one address.

    Identity and tokens come first, then the app, then the readiness gate. Everything that callers and
    Prometheus use follows the gate, so it moves to a new app only once that one has generated a token.
    """

    app_id: pulumi.Output[str]
    """Id of the app that serves."""
    url: pulumi.Output[str]
    """Address of the app that serves, without trailing slash."""
    openai_base_url: pulumi.Output[str]
    """What an OpenAI client takes as `base_url`."""
    model: pulumi.Output[str]
    """Name of the model in requests."""
    ready_host: pulumi.Output[str]
    """Host (and port, where it is not 443) of `url`, a scrape target."""
    client_token: pulumi.Output[str]
    """Bearer token for callers, a secret; it may call this app and nothing else."""
    scraper_token: pulumi.Output[str]
    """Bearer token for Prometheus, a secret of the same rights."""
    platform_dashboard_url: pulumi.Output[str | None]
    """The platform's own dashboard of the app."""

    def __init__(
        self,
        name: str,
        settings: EndpointSettings,
        *,
        service_name: str,
        protect: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declares the endpoint in the project `service_name`; `protect` is for the app alone."""
        super().__init__("ovh-vllm:components:InferenceEndpoint", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        identity = Identity(f"{name}-identity", service_name=service_name, opts=child)
        tokens = {
            (user, generation): Token(
                f"{name}-{user}-token-{generation}",
                service_name=service_name,
                identity=identity.value,
                region=settings.region,
                opts=child,
            )
            for user in ("client", "scraper")
            for generation in generations(settings)
        }
        TokenSweep(
            f"{name}-token-sweep",
            service_name=service_name,
            identity=identity.value,
            token_ids=[token.id for token in tokens.values()],
            opts=child,
        )
        callers, scraper = (tokens[user, settings.token_generation] for user in ("client", "scraper"))
        app = App(
            name,
            service_name=service_name,
            identity=identity.value,
            name=settings.app_name,
            region=settings.region,
            image=settings.image,
            flavor=settings.gpu_flavor,
            gpu=settings.gpu_count,
            command=command(settings),
            env=self._container_environment(settings),
            default_http_port=settings.port,
            readiness_probe=settings.readiness_probe,
            liveness_probe=settings.liveness_probe,
            scaling_strategy=scaling(settings),
            deployment_strategy=DeploymentStrategy(
                progress_deadline_seconds=settings.progress_deadline_seconds
            ),
            volumes=settings.volumes,
            labels=settings.app_labels,
            container_updates=settings.container_updates,
            adopt=settings.adopt_app_id or None,
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=protect,
                delete_before_replace=settings.delete_before_replace,
                # Without a token no gate, and a replaced app would be deleted without one.
                depends_on=list(tokens.values()),
            ),
        )
        ready = Readiness(
            f"{name}-ready",
            app=app,
            token=callers.value,
            model=served_model(settings),
            timeout_seconds=settings.ready_timeout_seconds,
            opts=child,
        )
        self.app_id = ready.app_id
        self.url = ready.url
        self.openai_base_url = pulumi.Output.concat(ready.url, "/v1")
        self.model = ready.model
        self.ready_host = ready.url.apply(lambda url: urlsplit(url).netloc)
        self.client_token = callers.value
        self.scraper_token = scraper.value
        self.platform_dashboard_url = ready.monitoring_url
        self.register_outputs({"app_id": self.app_id, "url": self.url, "client_token": self.client_token})

    def _container_environment(self, settings: EndpointSettings) -> dict[str, pulumi.Input[str]]:
        environment: dict[str, pulumi.Input[str]] = {**settings.vllm_environment}
        token = settings.hugging_face_token.get_secret_value()
        if token:
            environment["HF_TOKEN"] = pulumi.Output.secret(token)
        else:
            pulumi.log.warn(
                f"no Hugging Face token: {settings.model} is downloaded without one. Gated models (the page "
                "asks you to accept terms, such as meta-llama/* and google/gemma-*) need it: "
                f"`pulumi config set --secret huggingFaceToken -s {pulumi.get_stack()}`, or HF_TOKEN in the "
                "environment.",
                resource=self,
            )
        return environment


def served_model(settings: EndpointSettings) -> str:
    """The name under which vLLM serves the model: the first `--served-model-name`, else the model's id."""
    served = settings.model
    for argument, following in pairwise([*settings.vllm_arguments, settings.model]):
        name, equals, value = argument.partition("=")
        # vLLM takes --served_model_name, too, and of two the last one.
        if name.replace("_", "-") == "--served-model-name":
            served = value if equals else following
    return served
