"""What several tests share and pytest need not know of: processes, run folders, small networks."""

import pytest

pytest.register_assert_rewrite("helpers.runs")
