-- Shops, who works there, what is ordered, and what the orders of an hour add up to. Who may read is said here, once.

CREATE TABLE shops (
  id   int PRIMARY KEY,
  name text NOT NULL
);

CREATE TABLE staff (
  shop_id int NOT NULL REFERENCES shops,
  user_id uuid NOT NULL,
  PRIMARY KEY (shop_id, user_id)
);

CREATE TABLE orders (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  shop_id   int NOT NULL REFERENCES shops,
  item      text NOT NULL,
  total     numeric(10, 2) NOT NULL,
  state     text NOT NULL DEFAULT 'placed' CHECK (state IN ('placed', 'packed', 'shipped')),
  placed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON orders (placed_at DESC, id);

-- A live query is of rows. What shall be a live number is kept as a row.
CREATE TABLE sales_by_hour (
  shop_id int NOT NULL REFERENCES shops,
  hour    timestamptz NOT NULL,
  orders  int NOT NULL,
  revenue numeric(12, 2) NOT NULL,
  PRIMARY KEY (shop_id, hour)
);

CREATE FUNCTION add_to_sales() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO sales_by_hour AS s VALUES (NEW.shop_id, date_trunc('hour', NEW.placed_at), 1, NEW.total)
    ON CONFLICT (shop_id, hour) DO UPDATE SET orders = s.orders + 1, revenue = s.revenue + excluded.revenue;
  RETURN NULL;
END $$;
CREATE TRIGGER add_to_sales AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION add_to_sales();

ALTER TABLE shops ENABLE ROW LEVEL SECURITY;
ALTER TABLE staff ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE sales_by_hour ENABLE ROW LEVEL SECURITY;

CREATE POLICY own ON staff FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
CREATE POLICY of_staff ON shops FOR SELECT TO authenticated
  USING (id IN (SELECT shop_id FROM staff WHERE user_id = (SELECT auth.uid())));
CREATE POLICY of_staff ON orders FOR SELECT TO authenticated
  USING (shop_id IN (SELECT shop_id FROM staff WHERE user_id = (SELECT auth.uid())));
CREATE POLICY of_staff ON sales_by_hour FOR SELECT TO authenticated
  USING (shop_id IN (SELECT shop_id FROM staff WHERE user_id = (SELECT auth.uid())));
GRANT SELECT ON shops, staff, orders, sales_by_hour TO authenticated;

INSERT INTO shops VALUES (1, 'Harbour supplies');
INSERT INTO staff VALUES
  (1, '00000000-0000-4000-8000-000000000ada'),
  (1, '00000000-0000-4000-8000-000000000b0b');

-- A day of orders, so that there is something to look at.
INSERT INTO orders (shop_id, item, total, state, placed_at)
SELECT 1,
  (ARRAY['Rope, 20 m', 'Storm lantern', 'Sea chart', 'Canvas, 3 m', 'Brass cleat', 'Oilskin coat'])[1 + n * 7 % 6],
  9.90 + n * 37 % 90,
  CASE WHEN n < 8 THEN 'placed' WHEN n < 14 THEN 'packed' ELSE 'shipped' END,
  now() - interval '1 minute' * (4 + n * 13 + n * 29 % 11)
FROM generate_series(0, 105) n;
