"""An application's own migrations in the database that holds keyguard's tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, Table, create_engine

from keyguard import Keyguard
from keyguard.stores.sql import include_name
from tests.examples.pages import blocks, page

FLASK = """
from flask import Flask
import flask_migrate
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///{folder}/keys.db"
db.init_app(app)
migrate.init_app(app)

class Note(db.Model):
    id = db.Column(db.Integer, primary_key=True)

with app.app_context():
    flask_migrate.init("{folder}/migrations")
    flask_migrate.migrate("{folder}/migrations")
"""


def test_autogenerate_drops_no_table_of_keyguard_s(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    with Keyguard(url) as guard:
        guard.migrate()
    models = MetaData()
    Table("notes", models, Column("id", Integer, primary_key=True))
    engine = create_engine(url)
    with engine.connect() as connection:
        bare = compare_metadata(MigrationContext.configure(connection), models)
        context = MigrationContext.configure(connection, opts={"include_name": include_name})
        found = compare_metadata(context, models)
    engine.dispose()

    assert "remove_table" in {difference[0] for difference in bare}
    assert [(kind, table.name) for kind, table in found] == [("add_table", "notes")]


def test_flask_migrate_as_the_page_shows_it_drops_none_either(tmp_path: Path) -> None:
    with Keyguard(f"sqlite:///{tmp_path}/keys.db") as guard:
        guard.migrate()
    (shown,) = (block for block in blocks(page("docs/stores.md"), "python") if "Migrate(" in block)
    # A process of its own, as Alembic's env.py sets up logging.
    command = [sys.executable, "-c", shown + FLASK.format(folder=tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)

    (revision,) = (tmp_path / "migrations" / "versions").glob("*.py")
    upgrade = revision.read_text().partition("def upgrade")[2].partition("def downgrade")[0]
    assert "create_table('note'" in upgrade
    assert "drop" not in upgrade
    assert "keyguard" not in upgrade
