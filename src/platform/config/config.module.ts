import { type DynamicModule, Global, Module } from '@nestjs/common';
import { CONFIG, type ServerConfig } from './config.js';

@Global()
@Module({})
export class ConfigModule {
  static of(config: ServerConfig): DynamicModule {
    return { module: ConfigModule, providers: [{ provide: CONFIG, useValue: config }], exports: [CONFIG] };
  }
}
