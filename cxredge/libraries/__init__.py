"""Libraries that change the process or report to their makers when imported: only here, where they are kept from it."""
