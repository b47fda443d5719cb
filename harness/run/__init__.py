"""Where observations meet expectations: leasing guests, executing plans, artifacts, reports."""
