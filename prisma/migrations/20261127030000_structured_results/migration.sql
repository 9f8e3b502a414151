-- AlterTable
ALTER TABLE "processes" ADD COLUMN     "structured_result" JSON;
