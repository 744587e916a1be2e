from pathlib import Path as FilePath

import pytest

from lwm2m_server.lwm2m import ObjectRegistry, load_folder

OBJECTS = FilePath(__file__).resolve().parents[3] / "objects"


@pytest.fixture(scope="session")
def objects_folder() -> FilePath:
    return OBJECTS


@pytest.fixture(scope="session")
def registry() -> ObjectRegistry:
    return load_folder(OBJECTS)
