"""What was asked and seen: typed, stored, judged again, measured. Nothing here needs a guest, or what boots one."""
