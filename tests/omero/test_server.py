"""The loopback server talks with OMERO's own client, and refuses what a real server would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import omero
import pytest
from omero.gateway import BlitzGateway, MapAnnotationWrapper
from omero.rtypes import rint, rstring
from omero.sys import ParametersI

from polystore_flows.testing.omero import OmeroServer, schema
from polystore_flows.testing.omero.plates import add_plate

PIXELS = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(1, 2, 3, 4, 5)


@pytest.fixture
def gateway(server: OmeroServer) -> Iterator[BlitzGateway]:
    """OMERO's own Python client, connected over TCP."""
    client = BlitzGateway(
        "demo", server.demo.password, host="tcp://127.0.0.1", port=server.port, secure=False
    )
    assert client.connect(), client.getLastError()
    yield client
    client.close()


def test_the_model_is_that_of_omero_py() -> None:
    """A relation that omero.model does not have would let wrong HQL pass."""
    for kind, relations in schema.TO_ONE.items():
        cls = getattr(omero.model, f"{kind}I", None)
        if kind in ("Annotation", "Shape"):
            continue  # abstract
        assert cls is not None, kind
        obj = cls()
        for name in relations:
            assert hasattr(obj, f"_{name}"), (kind, name)
        for name in schema.TO_MANY.get(kind, {}):
            assert hasattr(obj, f"_{name}Seq"), (kind, name)


def test_the_gateway_reads_a_plate(server: OmeroServer, gateway: BlitzGateway) -> None:
    number = add_plate(server, {"B/3": [PIXELS, PIXELS + 1]}, channels=("DAPI", "GFP"))
    plate = gateway.getObject("Plate", number)
    assert plate.getName() == "plate"
    (well,) = plate.listChildren()
    assert (well.row, well.column) == (1, 2)
    image = well.getImage(1)
    assert image.getChannelLabels() == ["DAPI", "GFP"]
    assert image.getPixelSizeX() == 0.65
    np.testing.assert_array_equal(image.getPrimaryPixels().getPlane(2, 1, 0), PIXELS[0, 1, 2] + 1)


def test_the_gateway_writes_images_and_annotations(
    server: OmeroServer, gateway: BlitzGateway
) -> None:
    planes = [PIXELS[0, c, z] for z in range(3) for c in range(2)]
    made = gateway.createImageFromNumpySeq(iter(planes), "image", sizeZ=3, sizeC=2)
    image = gateway.getObject("Image", made.getId())
    np.testing.assert_array_equal(image.getPrimaryPixels().getPlane(2, 1, 0), planes[5])
    note = MapAnnotationWrapper(gateway)
    note.setNs("test")
    note.setValue([("key", "ü")])
    note.save()
    image.linkAnnotation(note)
    image = gateway.getObject("Image", made.getId())
    assert [list(a.getValue()) for a in image.listAnnotations()] == [[("key", "ü")]]
    gateway.deleteObjects("Image", [made.getId()], wait=True)
    assert gateway.getObject("Image", made.getId()) is None
    assert server.store.find("MapAnnotation", note.getId()) is None


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("select w from Well w where w.nothing = 3", "could not resolve property"),
        ("select w from Wells w", "not mapped"),
        ("select x from Well w", "not an alias"),
        ("select w from Well w where w.wellSamples.id = 3", "collection"),
        ("select i from Image i join fetch i.pixels.channels", "collection"),
        ("select i.id from Image i join fetch i.pixels", "owner of the fetched association"),
        ("select w from Well w where w.id = :missing", "named parameters"),
        ("select w from Well w limit 3", "unexpected token"),
        ("select w from Well w where w.id = 3 or w.id = 4", "unexpected token"),
        ("select w from Well w group by w.id", "unexpected token"),
        ("update Well set row = 3", "expecting"),
        ("select w.id, w.row from Well w", "one alias"),
        ("select p from Pixels p where p.pixelsType.value.id = 3", "could not resolve"),
    ],
)
def test_hql_that_no_server_would_take_is_refused(
    gateway: BlitzGateway, query: str, why: str
) -> None:
    projects = why.startswith("owner")
    service = gateway.getQueryService()
    act = service.projection if projects else service.findAllByQuery
    with pytest.raises(omero.QueryException) as caught:
        act(query, ParametersI())
    assert why in caught.value.message


def test_a_path_through_a_missing_object_drops_the_row(
    server: OmeroServer, gateway: BlitzGateway
) -> None:
    """Hibernate joins it inwardly; a query that relies on nulls must join outwardly itself."""
    number = add_plate(server, {"B/3": [PIXELS], "B/4": []})
    found = {}
    for name, select in (("dotted", "ws.image.name"), ("joined", "i.name")):
        rows = gateway.getQueryService().projection(
            f"select w.id, {select} from Well w left outer join w.wellSamples ws "
            "left outer join ws.image i where w.plate.id = :id",
            ParametersI().addId(number),
        )
        found[name] = len(rows)
    assert found == {"dotted": 1, "joined": 2}


def _well(plate: int) -> Any:
    well = omero.model.WellI()
    well.setPlate(omero.model.PlateI(plate, False))
    well.setRow(rint(1))
    well.setColumn(rint(2))
    return well


def test_a_plate_has_no_well_twice(server: OmeroServer, gateway: BlitzGateway) -> None:
    """As the unique index of OMERO's database has it."""
    number = add_plate(server, {"B/3": [PIXELS]})
    with pytest.raises(omero.ValidationException):
        gateway.getUpdateService().saveObject(_well(number))


def test_an_object_that_changed_meanwhile_is_not_overwritten(
    server: OmeroServer, gateway: BlitzGateway
) -> None:
    number = add_plate(server, {"B/3": [PIXELS]})
    query = gateway.getQueryService()
    one, two = (query.get("Plate", number) for _ in range(2))
    for plate, name in ((one, "first"), (two, "second")):
        plate.setName(rstring(name))
    gateway.getUpdateService().saveObject(one)
    with pytest.raises(omero.OptimisticLockException):
        gateway.getUpdateService().saveObject(two)
    assert query.get("Plate", number).getName().getValue() == "first"


def test_a_failing_save_leaves_nothing(server: OmeroServer, gateway: BlitzGateway) -> None:
    """A call is one transaction: here the second of two objects cannot be saved."""
    number = add_plate(server, {"B/3": [PIXELS]})
    before = len(server.store.all("Plate"))
    fresh = omero.model.PlateI()
    fresh.setName(rstring("fresh"))
    with pytest.raises(omero.ValidationException):
        gateway.getUpdateService().saveArray([fresh, _well(number)])
    assert len(server.store.all("Plate")) == before


def test_others_see_and_change_what_their_group_permits(server: OmeroServer) -> None:
    private = server.add_group("private", "rw----")
    server.add_user("owner", "o", [private.id])
    server.add_user("other", "x", [private.id])
    number = add_plate(server, {"B/3": [PIXELS]}, user="owner")
    seen = {}
    for name, password in (("owner", "o"), ("other", "x")):
        client = BlitzGateway(
            name, password, host="tcp://127.0.0.1", port=server.port, secure=False
        )
        assert client.connect()
        seen[name] = client.getObject("Plate", number) is not None
        client.close()
    assert seen == {"owner": True, "other": False}


def test_an_image_is_not_deleted_from_under_its_well(
    server: OmeroServer, gateway: BlitzGateway
) -> None:
    add_plate(server, {"B/3": [PIXELS]})
    image = server.store.all("Image")[-1].id
    with pytest.raises(omero.CmdError):
        gateway.deleteObjects("Image", [image], wait=True)
    assert server.store.find("Image", image) is not None


def test_a_folder_is_found_again_by_the_next_server(tmp_path: Path) -> None:
    with OmeroServer(tmp_path) as server:
        number = add_plate(server, {"B/3": [PIXELS]})
    with OmeroServer(tmp_path) as server:
        client = BlitzGateway(
            "demo", server.demo.password, host="tcp://127.0.0.1", port=server.port, secure=False
        )
        assert client.connect()
        (well,) = client.getObject("Plate", number).listChildren()
        plane = well.getImage(0).getPrimaryPixels().getPlane(0, 0, 0)
        client.close()
    np.testing.assert_array_equal(plane, PIXELS[0, 0, 0])
