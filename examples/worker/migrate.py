"""The release command: applies what is new in `migrations`, in order, each file as a whole or not at all."""

import pathlib

from database import connect


def main():
    database = connect()
    database.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY)")
    done = {row["name"] for row in database.execute("SELECT name FROM migrations")}
    for file in sorted(pathlib.Path(__file__).with_name("migrations").glob("*.sql")):
        if file.name in done:
            continue
        name = file.name.replace("'", "''")
        database.executescript(f"BEGIN IMMEDIATE;\n{file.read_text()}\nINSERT INTO migrations VALUES ('{name}');\nCOMMIT;")
        print(f"applied {file.name}", flush=True)
    print("the database is up to date", flush=True)


if __name__ == "__main__":
    main()
