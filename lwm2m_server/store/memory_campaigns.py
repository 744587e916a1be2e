# ruff: noqa: D102  the docstrings are the ports'
"""Campaigns and deployments in memory."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lwm2m_server.campaigns.records import Campaign, Deployment, DeploymentState, StateCount
from lwm2m_server.store.memory_tables import Tables, cut
from lwm2m_server.store.records import NewEvent, Page
from lwm2m_server.store.rules import campaign_taken, check_step, no_campaign, no_manifest


class MemoryCampaignStore:
    """See `ports.CampaignStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, campaign: Campaign, *, events: Sequence[NewEvent] = ()) -> None:
        if campaign.id in self._tables.campaigns:
            raise campaign_taken(campaign)
        self._check(campaign)
        self._tables.campaigns[campaign.id] = campaign
        self._tables.append(events)

    async def get(self, campaign_id: str) -> Campaign | None:
        return self._tables.campaigns.get(campaign_id)

    async def find(self, name: str) -> Campaign | None:
        return next((each for each in self._tables.campaigns.values() if each.name == name), None)

    async def page(
        self, *, states: Iterable[str] | None = None, after: str | None = None, limit: int = 100
    ) -> Page[Campaign]:
        wanted = None if states is None else {str(state) for state in states}
        found = [c for c in self._tables.campaigns.values() if wanted is None or c.state.value in wanted]
        return cut(found, lambda campaign: campaign.id, after, limit)

    async def change(self, old: Campaign, new: Campaign, *, events: Sequence[NewEvent] = ()) -> bool:
        check_step(old, new)
        if not self._unchanged(old):
            return False
        self._check(new)
        self._tables.campaigns[new.id] = new
        self._tables.append(events)
        return True

    async def delete(self, campaign: Campaign, *, events: Sequence[NewEvent] = ()) -> bool:
        if not self._unchanged(campaign):
            return False
        del self._tables.campaigns[campaign.id]
        for key in [key for key in self._tables.deployments if key[0] == campaign.id]:
            del self._tables.deployments[key]
        self._tables.append(events)
        return True

    def _check(self, campaign: Campaign) -> None:
        if campaign.manifest_id not in self._tables.manifests:
            raise no_manifest(campaign.manifest_id)
        others = self._tables.campaigns.values()
        if any(each.name == campaign.name and each.id != campaign.id for each in others):
            raise campaign_taken(campaign)

    def _unchanged(self, campaign: Campaign) -> bool:
        now = self._tables.campaigns.get(campaign.id)
        return now is not None and (now.state, now.revision) == (campaign.state, campaign.revision)


class MemoryDeploymentStore:
    """See `ports.DeploymentStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, deployments: Sequence[Deployment], *, events: Sequence[NewEvent] = ()) -> int:
        new = {(each.campaign_id, each.endpoint): each for each in deployments}
        new = {key: each for key, each in new.items() if key not in self._tables.deployments}
        for campaign_id, _ in new:
            if campaign_id not in self._tables.campaigns:
                raise no_campaign(campaign_id)
        self._tables.deployments |= new
        self._tables.append(events if new else ())
        return len(new)

    async def get(self, campaign_id: str, endpoint: str) -> Deployment | None:
        return self._tables.deployments.get((campaign_id, endpoint))

    async def page(
        self,
        campaign_id: str,
        *,
        state: DeploymentState | None = None,
        reason: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Deployment]:
        found = [
            each
            for each in self._in(campaign_id)
            if (state is None or each.state is state) and (reason is None or each.reason == reason)
        ]
        return cut(found, lambda deployment: deployment.endpoint, after, limit)

    async def of(self, endpoint: str) -> list[Deployment]:
        found = [each for each in self._tables.deployments.values() if each.endpoint == endpoint]
        return sorted(found, key=lambda each: (each.created_at, each.campaign_id), reverse=True)

    async def open(self, endpoint: str) -> list[Deployment]:
        return (await self.open_many([endpoint])).get(endpoint, [])

    async def open_many(self, endpoints: Iterable[str]) -> dict[str, list[Deployment]]:
        wanted = set(endpoints)
        found: dict[str, list[Deployment]] = {}
        for each in sorted(
            self._tables.deployments.values(), key=lambda each: (each.created_at, each.campaign_id)
        ):
            if each.endpoint in wanted and each.active:
                found.setdefault(each.endpoint, []).append(each)
        return found

    async def active(
        self, campaign_id: str, *, after: str | None = None, limit: int = 1000
    ) -> Page[Deployment]:
        found = [each for each in self._in(campaign_id) if each.active]
        return cut(found, lambda deployment: deployment.endpoint, after, limit)

    async def due(self, campaign_id: str, *, now: float, limit: int) -> list[Deployment]:
        found = [each for each in self._pending(campaign_id) if (each.retry_at or 0.0) <= now]
        return sorted(found, key=lambda each: (each.retry_at or 0.0, each.endpoint))[:limit]

    async def next_retry(self, campaign_id: str) -> float | None:
        return min((each.retry_at for each in self._pending(campaign_id) if each.retry_at), default=None)

    async def change(self, old: Deployment, new: Deployment, *, events: Sequence[NewEvent] = ()) -> bool:
        check_step(old, new)
        key = (old.campaign_id, old.endpoint)
        now = self._tables.deployments.get(key)
        if now is None or (now.state, now.revision) != (old.state, old.revision):
            return False
        self._tables.deployments[key] = new
        self._tables.append(events)
        return True

    async def progress(self, campaign_id: str, endpoint: str, *, offset: int, size: int, now: float) -> None:
        old = self._tables.deployments.get((campaign_id, endpoint))
        if old is not None and old.active and old.updated_at <= now:
            new = replace(old, offset=offset, size=size, updated_at=now)
            self._tables.deployments[campaign_id, endpoint] = new

    async def statistics(self, campaign_id: str) -> list[StateCount]:
        counts = Counter((each.state, each.reason) for each in self._in(campaign_id))
        return [StateCount(*key, count) for key, count in sorted(counts.items())]

    def _in(self, campaign_id: str) -> list[Deployment]:
        return [each for each in self._tables.deployments.values() if each.campaign_id == campaign_id]

    def _pending(self, campaign_id: str) -> list[Deployment]:
        return [each for each in self._in(campaign_id) if each.state is DeploymentState.PENDING]
