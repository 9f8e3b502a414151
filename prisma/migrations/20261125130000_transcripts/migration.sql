-- AlterTable
ALTER TABLE "sessions" ADD COLUMN     "transcript_gaps" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN     "last_ordinal" INTEGER NOT NULL DEFAULT 0;

-- CreateTable
CREATE TABLE "session_entries" (
    "session_id" UUID NOT NULL,
    "ordinal" INTEGER NOT NULL,
    "subpath" TEXT NOT NULL,
    "uuid" TEXT,
    "head" INTEGER NOT NULL,
    "entry" JSON NOT NULL,

    CONSTRAINT "session_entries_pkey" PRIMARY KEY ("session_id","ordinal")
);

-- CreateIndex
CREATE UNIQUE INDEX "session_entries_once" ON "session_entries"("session_id", "subpath", "uuid") WHERE (uuid IS NOT NULL);

-- AddForeignKey
ALTER TABLE "session_entries" ADD CONSTRAINT "session_entries_session_id_fkey" FOREIGN KEY ("session_id") REFERENCES "sessions"("id") ON DELETE CASCADE ON UPDATE CASCADE;
