"""The block that names one plate."""

from __future__ import annotations

import polystore_flows as ps
from polystore_flows.credentials import keep
from polystore_flows.flows.blocks.credentials import DOCS, LOGO, VERSION
from polystore_flows.flows.blocks.dispatch import dispatched, with_async_forms
from polystore_flows.flows.blocks.located import Located
from polystore_flows.hcs.plate import Mode, Plate


@with_async_forms
class PlateRef(Located):
    """
    A plate by its URI, with credentials if its store asks for them.

    Attributes:
        uri: Of the plate, such as zarr:///data/p.zarr or omero://host/plate/1.
        credentials: For the store of the URI.

    Example:
        Load a stored reference and open the plate:
        ```python
        from polystore_flows.flows.blocks import PlateRef

        plate_ref = PlateRef.load("BLOCK_NAME")
        plate = plate_ref.open_plate()
        ```
    """

    _block_type_name = "Polystore Plate"
    _block_type_slug = "polystore-plate"
    _block_schema_version = VERSION
    _documentation_url = DOCS
    _logo_url = LOGO

    @dispatched
    def open_plate(self, mode: Mode = "r") -> Plate:
        """Open the plate; reads metadata only. See ``polystore_flows.open_plate``.

        This process goes on using the block's credentials for the store.
        """
        for store, credentials in self.given_credentials().items():
            keep(store, credentials)
        return ps.open_plate(self.uri, mode)
