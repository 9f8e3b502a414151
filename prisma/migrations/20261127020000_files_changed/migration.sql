-- AlterTable
ALTER TABLE "processes" ADD COLUMN     "files_changed" JSONB;
