// What runners are made of, from this node's cache: images unpacked by layer, packed folders, weights. Which images are
// whole here is remembered in `images.json`, and checked against the cache at the start.
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import type { Clock } from '../../shared/clock.ts';
import { isDigest, type Digest } from '../../shared/digest.ts';
import { asFailure, Failure } from '../../shared/failure.ts';
import { parseImageRef } from '../../shared/image-ref.ts';
import type { Log } from '../../shared/log.ts';
import type { Body } from '../../shared/protocol.ts';
import { writeDurably } from '../core/durable-file.ts';
import type { ImagePuller, PulledImage } from '../image/image-puller.ts';
import type { FileMount, RunnerSource } from './driver.ts';
import type { Material, Materials, Progress } from './materials.ts';

type Order = Body<'startRunner'>;
type Source = Order['source'];
