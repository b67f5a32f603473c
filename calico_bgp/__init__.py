"""Routes: what the Catalog holds becomes /32 and /128 routes over BGP. Imported only when configured."""
