"""Routes: the Catalog becomes /32 and /128 routes over BGP. Imported only when configured."""
