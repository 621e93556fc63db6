"""The paper's tables and figures: plans, the jobs they ask for, their measurements, and the pages that show them."""
