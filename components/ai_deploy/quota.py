"""What to tell a user whose app was refused for want of GPUs."""

from __future__ import annotations

from components.ai_deploy.api import AiDeploy
from components.ai_deploy.client import OvhApiError


def shortage(api: AiDeploy, error: OvhApiError) -> str:
    """How large the quota is and who uses it, as far as the API tells; "" for errors of another kind."""
    if not error.about_quota:
        return ""
    try:
        users = [(app.gpus, app) for app in api.all_apps() if app.gpus]
    except OvhApiError as failure:
        return f" In use: unknown ({failure})"
    try:
        quota = api.gpu_quota()
    except OvhApiError:
        # A right that nothing else needs.
        quota = None
    limit = f"{quota} GPU" if quota is not None else "unknown (4 GPU unless OVHcloud has raised it)"
    names = ", ".join(f"{app.spec.get('name')} {app.id} {gpus}" for gpus, app in users)
    used = sum(gpus for gpus, _ in users)
    return f" In use: {used} GPU by apps{f' ({names})' if names else ''}. Quota of the project: {limit}."
