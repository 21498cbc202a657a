"""Where work runs. One seam (``seam``), two implementations: ``local`` and ``ray``."""
