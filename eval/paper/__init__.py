"""The paper's tables and figures: plans, their jobs, what was measured, and the pages that show it."""
