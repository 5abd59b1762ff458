"""How stages run on Ray; knows no stage and no prompt."""
