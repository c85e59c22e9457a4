"""AdapterHub's folders."""
