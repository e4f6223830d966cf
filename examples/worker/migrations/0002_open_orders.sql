CREATE INDEX open_orders ON orders (id) WHERE cooked_by IS NULL;
